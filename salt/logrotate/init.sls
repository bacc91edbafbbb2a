{#- The apps' logs. copytruncate, because an app's log stays open for as long as the app lives. -#}
{%- set host = salt["flipside.layout"](pillar.get("flipside", {})).host %}
{%- set rotate = host.logrotate %}
{%- if rotate.manage %}
{%- if rotate.package %}
logrotate-package:
  pkg.installed:
    - name: logrotate
    - require_in:
      - file: {{ rotate.conf }}
{%- endif %}

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
{%- else %}
logrotate-is-not-managed:
  test.nop
{%- endif %}
