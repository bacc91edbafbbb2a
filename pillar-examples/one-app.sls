# The least: an untouched Django project, on the domain that it is to have.
flipside:
  apps:
    blog:
      template: python-django-sqlite
      options:
        domains: [blog.example.org]
