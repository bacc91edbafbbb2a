{#- Of each app that pillar assigns to this host: its user, its folders, its vhost, and the record of the options
    that the vhost was made from. Every value below was checked by flipside.layout. The record comes last, so that it
    only ever says what nginx really serves. -#}
{%- set flip = salt["flipside.layout"](pillar.get("flipside", {})) %}
{%- set host = flip.host %}
{%- set users = host.users %}

include:
  - flipside.folders
  - nginx

{%- for name, why in flip.refused.items() %}
flipside-refused-{{ loop.index }}:
  test.configurable_test_state:
    - name: {{ ("flipside:apps:" ~ name) | json }}
    - result: False
    - changes: False
    - comment: {{ why | json }}
{%- endfor %}

{%- for name, app in flip.apps.items() %}
{%- if users %}
flipside-group-{{ name }}:
  group.present:
    - name: {{ app.user }}
    - system: True

flipside-user-{{ name }}:
  user.present:
    - name: {{ app.user }}
    - system: True
    - gid: {{ app.user }}
    {#- No home: HOME is in the environment of the app's processes, and usermod refuses while one of them runs. #}
    - createhome: False
    - shell: /usr/sbin/nologin
    - require:
      - group: flipside-group-{{ name }}
    - require_in:
      - file: {{ app.home }}/data
      - file: {{ app.home }}/media
      - file: {{ app.home }}/static
      - file: {{ app.home }}/home
{%- endif %}

{{ app.home }}:
  file.directory:
    - mode: "0755"
    {%- if users %}
    - user: root
    - group: root
    {%- endif %}
    - require:
      - file: {{ host.apps_dir }}

{%- for folder, mode in (("data", "0751" if app.traverse_data else "0750"), ("media", "0755"), ("static", "0755"), ("home", "0750")) %}
{{ app.home }}/{{ folder }}:
  file.directory:
    - mode: "{{ mode }}"
    {%- if users %}
    - user: {{ app.user }}
    - group: {{ app.user }}
    {%- endif %}
    - require:
      - file: {{ app.home }}
{%- endfor %}

{#- Root's: an app that could write here could put its own file in the place of its socket. #}
{{ app.run }}:
  file.directory:
    - mode: "0755"
    {%- if users %}
    - user: root
    - group: root
    {%- endif %}
    - require:
      - file: {{ host.run_dir }}

{{ host.nginx.sites }}/{{ name }}.conf:
  file.managed:
    - source: salt://flipside/files/vhost.conf.jinja
    - template: jinja
    - mode: "0644"
    - context:
        app: {{ app | json }}
        sites: {{ host.nginx.sites }}
    - require:
      - sls: nginx
      - file: {{ app.home }}/static
      - file: {{ app.home }}/media
    - require_in:
      - flipside: flipside-nginx

{{ app.home }}/{{ flip.record }}:
  file.managed:
    - contents: "{{ app.hash }}"
    - mode: "0644"
    {%- if users %}
    - user: root
    - group: root
    {%- endif %}
    - require:
      - file: {{ host.nginx.sites }}/{{ name }}.conf
      - flipside: flipside-nginx
{%- endfor %}

{%- for name in flip.absent %}
flipside-absent-{{ name }}:
  file.absent:
    - names:
      - {{ host.nginx.sites }}/{{ name }}.conf
      - {{ host.apps_dir }}/{{ name }}/{{ flip.record }}
    - require_in:
      - flipside: flipside-nginx
{%- endfor %}

{%- if flip.apps or flip.absent %}
flipside-nginx:
  flipside.nginx_reloaded:
    - require:
      - sls: nginx
{%- endif %}
