"""The fastest hand-written forms known of what the kernel does. They keep none of its promises beyond the measured."""
