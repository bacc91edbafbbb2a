{#- The folders that the agent and the apps share. -#}
{%- set host = salt["flipside.layout"](pillar.get("flipside", {})).host %}
{%- for folder, mode in ((host.apps_dir, "0755"), (host.state_dir, "0711"), (host.run_dir, "0755"), (host.log_dir, "0755")) %}
{{ folder }}:
  file.directory:
    - mode: "{{ mode }}"
    - makedirs: True
    {%- if host.users %}
    - user: root
    - group: root
    {%- endif %}
{%- endfor %}
