# The app's wheel brings its static files ready-made in a folder: they are copied at a deploy.
flipside:
  apps:
    board:
      template: python-django-sqlite
      options:
        domains: [board.example.org]
        static: {package: board, path: static/dist}
        media: false
        hooks: {static: []}
