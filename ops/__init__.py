"""What an operator deploys with: a compose installation's first start, its demonstration realm, alerts, a dashboard."""
