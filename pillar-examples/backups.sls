# Encrypted backups of every app's databases. The host holds recipients only: it cannot read what it wrote.
flipside:
  host:
    agent:
      settings:
        keep_releases: 5
        backup:
          repo: s3://example-backups/web1
          recipients: [age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqexmpl]
  apps:
    blog:
      template: python-django-sqlite
      options:
        domains: [blog.example.org]
        databases: [db.sqlite3, "archive-*.sqlite3"]
    sandbox:
      template: python-django-sqlite
      options:
        domains: [sandbox.example.org]
        backup: false
