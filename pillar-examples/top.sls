# Which minion gets which of the files beside this one. Target by minion id, never by grains: a minion writes its
# own grains, and could ask for another's secrets.
base:
  web1:
    - one-app
  web2:
    - https
    - secrets
