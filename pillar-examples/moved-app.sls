# `old` left this host: its vhost goes. `flipside.removed` stops it; its data and its backups stay.
flipside:
  absent: [old]
  apps:
    blog:
      template: python-django-sqlite
      options:
        domains: [blog.example.org]
