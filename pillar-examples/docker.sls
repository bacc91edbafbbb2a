# The same app in a container, with a limit on its memory.
flipside:
  apps:
    blog:
      template: python-django-sqlite
      runtime: docker
      memory: 1G
      options:
        domains: [blog.example.org]
        release_header: true
