"""Plays a scenario on a running stack as its people would, over HTTP through the gateway, on the virtual clock."""
