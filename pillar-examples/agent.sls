# The agent as Salt installs it: its program and uv from the master, with settings of agent.toml.
flipside:
  host:
    agent:
      source: salt://files/flipside-agent
      uv_source: salt://files/uv
      settings:
        keep_releases: 3
        socket_group: flipside
  apps:
    blog:
      template: python-django-sqlite
      options:
        domains: [blog.example.org]
