# Behind something that ends TLS (a load balancer, a tunnel): users see https, nginx listens in plain.
# Cookies become Secure, and the app is told https, whatever a client claims.
flipside:
  host:
    scheme: https
    nginx: {listen: 80}
  apps:
    blog:
      template: python-django-sqlite
      options:
        domains: [blog.example.org]
        nginx: {hsts: 31536000}
