# What every host of the platform is made of. `salt '*' state.apply` applies it; apps come by `flipside.deploy`.
base:
  "*":
    - nginx
    - memcached
    - rsyslog
    - logrotate
    - flipside.agent
    - flipside.app
