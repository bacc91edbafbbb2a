# Encrypted backups of every app's databases. The host holds recipients only: it cannot read what it wrote.
# The file of credentials is root's; without it the instance's role is used.
flipside:
  host:
    backup:
      repo: s3://example-backups/apps?region=eu-central-1
      recipients: [age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqexmpl]
      credentials_file: /etc/flipside/s3-credentials
      rpo: 10
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
