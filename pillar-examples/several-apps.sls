# Two apps on one host, each at a tag of its own; `flipside.deploy` without a name takes both, in name order.
flipside:
  apps:
    blog:
      template: python-django-sqlite
      tag: latest
      memory: 512M
      options:
        domains: [blog.example.org, www.blog.example.org]
        workers: 2
        threads: 4
      env:
        DJANGO_LOG_LEVEL: INFO
    shop:
      template: python-django-sqlite
      tag: stable
      options:
        domains: [shop.example.org]
        nginx: {client_max_body_size: 100m}
        health: {path: /healthz, status: 200, contains: ok}
