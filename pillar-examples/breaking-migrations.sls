# Migrations that the running code cannot live with: stop gently, migrate, start, while requests wait at the door.
flipside:
  apps:
    shop:
      template: python-django-sqlite
      options:
        domains: [shop.example.org]
        switch: held
        request_timeout: 120
        start_timeout: 90
