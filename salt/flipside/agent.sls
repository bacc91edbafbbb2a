{#- The agent itself: its configuration, its unit, the user that builds releases. With agent.manage false this does
    nothing: whoever started the agent keeps it. -#}
{%- set flip = salt["flipside.layout"](pillar.get("flipside", {})) %}
{%- set host = flip.host %}
{%- set agent = host.agent %}
{%- if agent.manage %}
include:
  - flipside.folders

{%- if host.users %}
flipside-build-user:
  user.present:
    - name: {{ host.build_user }}
    - system: True
    - usergroup: True
    - home: {{ host.state_dir }}/build
    - createhome: False
    - shell: /usr/sbin/nologin

{{ host.state_dir }}/build:
  file.directory:
    - user: {{ host.build_user }}
    - group: {{ host.build_user }}
    - mode: "0755"
    - require:
      - user: flipside-build-user
      - file: {{ host.state_dir }}
{%- endif %}

{#- The programs, where pillar says from where: salt://… or a URL with its hash. #}
{%- for program, source, hash in (
    (agent.binary, agent.source, agent.source_hash), (host.uv, agent.uv_source, agent.uv_source_hash)) %}
{%- if source %}
{{ program }}:
  file.managed:
    - source: {{ source | json }}
    {%- if hash %}
    - source_hash: {{ hash | json }}
    {%- endif %}
    - mode: "0755"
    - makedirs: True
{%- endif %}
{%- endfor %}

{{ agent.config }}:
  file.managed:
    - contents: {{ flip.agent_toml | json }}
    - mode: "0640"
    - makedirs: True
    - show_changes: False

{%- if grains.get("init") == "systemd" %}
/etc/systemd/system/flipside-agent.service:
  file.managed:
    - source: salt://flipside/files/flipside-agent.service.jinja
    - template: jinja
    - mode: "0644"
    - context:
        agent: {{ agent | json }}
        run_dir: {{ host.run_dir }}

{%- if flip.app_units %}
/etc/systemd/system/flipside-app@.service:
  file.managed:
    - source: salt://flipside/files/flipside-app@.service.jinja
    - template: jinja
    - mode: "0644"
    - context:
        host: {{ host | json }}
    - require_in:
      - service: flipside-agent
  {#- Salt itself has systemd read the unit files again only for services that it manages. #}
  module.run:
    - name: service.systemctl_reload
    - onchanges:
      - file: /etc/systemd/system/flipside-app@.service
    - require_in:
      - service: flipside-agent
{%- endif %}

flipside-agent:
  service.running:
    - enable: True
    - watch:
      - file: {{ agent.config }}
      - file: /etc/systemd/system/flipside-agent.service
      {%- if agent.source %}
      - file: {{ agent.binary }}
      {%- endif %}
{%- endif %}
{%- else %}
flipside-agent-is-not-managed:
  test.nop
{%- endif %}
