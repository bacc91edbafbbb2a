{#- The apps' logs. copytruncate: uWSGI holds its log open for as long as the app lives. -#}
{%- set host = salt["flipside.layout"](pillar.get("flipside", {})).host %}
{%- set rotate = salt["flipside.logrotate"](pillar.get("flipside", {})) %}
{{ rotate.conf }}:
  file.managed:
    - mode: "0644"
    - makedirs: True
    - contents: |
        # Written by Salt (logrotate); edits are lost.
        {{ host.log_dir }}/*.log {
            daily
            maxsize {{ rotate.maxsize }}
            rotate {{ rotate.keep }}
            compress
            delaycompress
            missingok
            notifempty
            copytruncate
        }
{%- if host.users %}

logrotate-package:
  pkg.installed:
    - name: logrotate
{%- endif %}
