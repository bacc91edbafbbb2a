# Commands beside the web workers, and commands at times: same user, environment and release as the workers.
flipside:
  apps:
    shop:
      template: python-django-sqlite
      options:
        domains: [shop.example.org]
        background:
          queue: {command: [django-admin, db_worker], count: 2}
        schedule:
          sessions: {command: [django-admin, clearsessions], cron: "10 3 * * *"}
