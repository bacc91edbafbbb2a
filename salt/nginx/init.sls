{#- nginx's main configuration, and a folder of vhosts that belongs to Flipside alone. With nginx.service false
    (an ordinary user's demo, a container) nothing is installed and no service is touched. -#}
{%- set flip = salt["flipside.layout"](pillar.get("flipside", {})) %}
{%- set nginx = flip.host.nginx %}
{%- if nginx.service %}
nginx-package:
  pkg.installed:
    - name: nginx
    - require_in:
      - file: {{ nginx.conf }}
{%- endif %}

{{ nginx.sites }}:
  file.directory:
    - mode: "0755"
    - makedirs: True

{{ nginx.sites }}/uwsgi_params:
  file.managed:
    - source: salt://nginx/files/uwsgi_params
    - mode: "0644"
    - require:
      - file: {{ nginx.sites }}

{%- if nginx.temp %}
{{ nginx.temp }}:
  file.directory:
    - mode: "0755"
    - makedirs: True
    - require_in:
      - file: {{ nginx.conf }}
{%- endif %}

{{ nginx.conf }}:
  file.managed:
    - source: salt://nginx/files/nginx.conf.jinja
    - template: jinja
    - mode: "0644"
    - makedirs: True
    - context:
        nginx: {{ nginx | json }}
        group: {{ (flip.host.web_group if flip.host.users else "") | json }}
    - require:
      - file: {{ nginx.sites }}

{%- if nginx.service %}
nginx-service:
  service.running:
    - name: nginx
    - enable: True
    - require:
      - pkg: nginx-package
      - file: {{ nginx.conf }}
{%- endif %}

nginx-reload:
  flipside.nginx_reloaded:
    - require:
      - file: {{ nginx.conf }}
      - file: {{ nginx.sites }}/uwsgi_params
      {%- if nginx.service %}
      - service: nginx-service
      {%- endif %}
