# Secrets of an app. Each value is text: quote what YAML would take for something else. `flipside secret encrypt`
# makes the armoured ones; only the agent of the host can read them, and they stay armoured on the way there.
# Merged with the file that names the app.
flipside:
  apps:
    blog:
      env:
        MAIL_PASSWORD: |
          -----BEGIN AGE ENCRYPTED FILE-----
          YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBleGFtcGxlLW9ubHktbm90
          LXJlYWwtY2lwaGVydGV4dAo=
          -----END AGE ENCRYPTED FILE-----
        MAIL_PORT: "587"
        MAIL_PREFIX: ""
