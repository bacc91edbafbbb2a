# The same app in a container, with a limit on its memory. What its wheels need of the host beside Python, here
# PostgreSQL's library, is installed on the host and named once for all its apps.
flipside:
  host:
    agent:
      settings:
        docker_packages: [libpq5]
  apps:
    blog:
      template: python-django-sqlite
      runtime: docker
      memory: 1G
      options:
        domains: [blog.example.org]
        release_header: true
