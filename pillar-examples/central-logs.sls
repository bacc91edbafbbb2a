# Logs of all hosts in one place, and a copy to Logentries over TLS. TCP syslog has no acknowledgement: when the
# connection breaks, at most two batches of eight lines are lost.
flipside:
  host:
    rsyslog:
      listen: 10.0.0.1:5514
      logentries: {token: 00000000-0000-0000-0000-000000000000}
    logrotate: {keep: 30, maxsize: 200M}
  apps:
    blog:
      template: python-django-sqlite
      options:
        domains: [blog.example.org]
