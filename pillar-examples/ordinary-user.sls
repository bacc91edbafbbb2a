# Everything below one folder and under one uid: a trial with no root. Whoever started nginx, memcached and the
# agent keeps them; the machine's own rsyslog and logrotate are left alone.
flipside:
  host:
    socket: /home/ann/flipside/run/agent.sock
    apps_dir: /home/ann/flipside/apps
    state_dir: /home/ann/flipside/state
    run_dir: /home/ann/flipside/run
    log_dir: /home/ann/flipside/log
    users: false
    port: 8080
    agent: {config: /home/ann/flipside/agent.toml, binary: /home/ann/flipside/bin/flipside-agent, manage: false}
    nginx:
      conf: /home/ann/flipside/nginx/nginx.conf
      sites: /home/ann/flipside/nginx/sites
      pid: /home/ann/flipside/nginx/nginx.pid
      temp: /home/ann/flipside/nginx/temp
      access_log: /home/ann/flipside/log/nginx-access.log
      error_log: /home/ann/flipside/log/nginx-error.log
      listen: 127.0.0.1:8080
      service: false
    memcached: {address: "127.0.0.1:11311", service: false}
  apps:
    blog:
      template: python-django-sqlite
      options:
        domains: [blog.localhost]
