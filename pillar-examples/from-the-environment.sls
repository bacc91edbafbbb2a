# A finished product that reads all of its configuration from the environment: no overlay, its own commands, and
# variables that name the platform's. ${NAME} takes the platform's value, $$ is a dollar.
flipside:
  apps:
    wiki:
      template: python-django-sqlite
      options:
        domains: [wiki.example.org]
        wsgi: wiki.wsgi:application
        settings: wiki.config.settings
        settings_overlay: false
        databases: [wiki.db, "caches/*.db"]
        media: {url: /uploads/, root: "${DATA_DIR}/uploads"}
        hooks:
          check: []
          static: [[python, -m, wiki, manage, collectstatic, --noinput]]
          migrate: [{command: [python, -m, wiki, manage, migrate], timeout: 1800}]
          once: [[python, -m, wiki, manage, createsuperuser, --noinput]]
      env:
        WIKI_DB: "${DATA_DIR}/wiki.db"
        WIKI_UPLOADS: "${DATA_DIR}/uploads"
        WIKI_STATIC: "${STATIC_ROOT}"
        WIKI_CACHE: "memcached://${MEMCACHED}"
        WIKI_URL: "${PUBLIC_URL}"
        WIKI_PRICE_SIGN: "$$"
        WIKI_BANNER: ""
