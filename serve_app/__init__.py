"""SignalGraph: trading-signal neural networks in production. This package never imports Ray; `deployments` does."""
