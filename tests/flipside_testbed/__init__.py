"""What the demo and the end-to-end tests stand on: real Salt, nginx, memcached and agents as plain
processes."""
