{#- memcached on the address of flipside:host:memcached; the apps share it, each under a prefix of its own. -#}
{%- set memcached = salt["flipside.layout"](pillar.get("flipside", {})).host.memcached %}
{%- if memcached.service %}
memcached:
  pkg.installed: []
  service.running:
    - enable: True
    - require:
      - pkg: memcached
    - watch:
      - file: /etc/memcached.conf

/etc/memcached.conf:
  file.managed:
    - mode: "0644"
    - contents: |
        # Written by Salt (memcached); edits are lost.
        -d
        -u memcache
        -m {{ memcached.memory }}
        -l {{ memcached.address.rsplit(":", 1)[0] }}
        -p {{ memcached.address.rsplit(":", 1)[1] }}
        # No UDP: it has amplified attacks.
        -U 0
        -P /run/memcached/memcached.pid
    - require:
      - pkg: memcached
{%- else %}
memcached-is-not-managed:
  test.nop
{%- endif %}
