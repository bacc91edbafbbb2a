# A product that reads a configuration file instead of variables: pillar gives its text, plain or age-armoured, only
# the app can read it, and FILES_DIR is its folder. A changed text and `flipside.env` reload the app. Closed until its
# first administrator is made.
flipside:
  apps:
    forum:
      template: python-django-sqlite
      options:
        domains: [forum.example.org]
        nginx: {closed: true}
      env:
        FORUM_CONFIG: "${FILES_DIR}/forum.toml"
      files:
        forum.toml: |
          [mail]
          host = "mail.example.org"
          password = "example-only"
