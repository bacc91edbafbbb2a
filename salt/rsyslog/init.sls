{#- Logs in one place: each app's lines into rsyslog; from there into a file a host and program, to a central
    server, and to Logentries over TLS, each only where pillar says so. -#}
{%- set flip = salt["flipside.layout"](pillar.get("flipside", {})) %}
{%- set rsyslog = flip.host.rsyslog %}
{%- if rsyslog.manage %}
{%- if rsyslog.service %}
rsyslog-packages:
  pkg.installed:
    - pkgs:
      - rsyslog
      {%- if rsyslog.logentries.token %}
      - rsyslog-openssl
      {%- endif %}
    - require_in:
      - file: {{ rsyslog.conf }}
{%- endif %}

{%- for folder in (rsyslog.central, rsyslog.spool) %}
{{ folder }}:
  file.directory:
    - mode: "0750"
    - makedirs: True
    - require_in:
      - file: {{ rsyslog.conf }}
{%- endfor %}

{{ rsyslog.conf }}:
  file.managed:
    - source: salt://rsyslog/files/flipside.conf.jinja
    - template: jinja
    # It may hold the token.
    - mode: "0640"
    - show_changes: False
    - makedirs: True
    - context:
        apps: {{ flip.apps.keys() | list | json }}
        rsyslog: {{ rsyslog | json }}
        log_dir: {{ flip.host.log_dir }}

{%- if rsyslog.service %}
rsyslog:
  service.running:
    - enable: True
    - watch:
      - file: {{ rsyslog.conf }}
{%- endif %}
{%- else %}
rsyslog-is-not-managed:
  test.nop
{%- endif %}
