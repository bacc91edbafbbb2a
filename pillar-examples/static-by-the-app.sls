# The app serves its static files itself (WhiteNoise and the like): nginx passes everything on.
flipside:
  apps:
    board:
      template: python-django-sqlite
      options:
        domains: [board.example.org]
        static: false
        media: false
        hooks: {static: []}
