# Backups to a mounted disk, restored into scratch every day to prove that they can be: that needs an identity on
# the host, which then can read its backups. `flipside status` shows the age of the last verified restore.
flipside:
  host:
    backup:
      repo: /mnt/backups
      recipients: [age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqexmpl]
      identity_file: /etc/flipside/backup-identity
      rehearse_hours: 24
  apps:
    blog:
      template: python-django-sqlite
      options:
        domains: [blog.example.org]
