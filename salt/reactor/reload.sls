{#- Reactor: a request on the master's bus reloads an app on the host that runs it.

    In the master's configuration:
        reactor:
          - "flipside/do/reload/*":
            - salt://reactor/reload.sls
        flipside_reload: {blog: web1}     # the apps that events may reload, each with its one target

    The event decides nothing but which of these apps; the target is the configuration's, and every value passes
    through json. What reaches the minion's bus is an event again, which the agent answers under flipside/on/: no
    answer matches the pattern above. The request's id travels along, so one request is one reload. -#}
{%- set allowed = opts.get("flipside_reload", {}) %}
{%- set app = tag.split("/")[3:] | join("/") %}
{%- set inner = data.get("data") if data.get("data") is mapping else data %}
{%- if app in allowed %}
flipside-reload:
  local.event.fire:
    - tgt: {{ allowed[app] | json }}
    - args:
      - data: {{ {"id": (inner.get("id") or data.get("_stamp", "")) | string | truncate(100, True, "")} | json }}
      - tag: {{ ("flipside/do/reload/" ~ app) | json }}
{%- endif %}
