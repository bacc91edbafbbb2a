# Behind something that ends TLS (a load balancer, a tunnel): users see https, nginx listens in plain.
# Cookies become Secure, and the app is told https, whatever a client claims. `trusted` are the proxies that may say
# where a request came from.
flipside:
  host:
    scheme: https
    nginx: {listen: 80, trusted: [10.0.0.0/24]}
  apps:
    blog:
      template: python-django-sqlite
      options:
        domains: [blog.example.org]
        nginx: {hsts: 31536000}
