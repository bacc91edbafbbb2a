# Every release is switched held: stop gently, migrate, start, while requests wait at the door. Without this, a release
# whose migrations Django calls RemoveField, RenameField and the like is refused until somebody says
# allow=destructive, and only that one is held.
flipside:
  apps:
    shop:
      template: python-django-sqlite
      options:
        domains: [shop.example.org]
        switch: held
        maintenance_after: 10   # seconds until the maintenance page answers instead
        request_timeout: 120
        start_timeout: 90
