#!/bin/sh
# What a container of the image does; see the Dockerfile.
set -eu

packages=$(python -c 'import backend; print(list(backend.__path__)[0])')

case "${1:-}" in
    "")
        echo "say what to run: a service (auth, product, cart, task, order, payment), 'prepare SERVICE', or a tandem command" >&2
        exit 2
        ;;
    auth | product | cart | task | order | payment)
        exec uvicorn --factory "backend.${1}_service.app.main:create_app" \
            --host 0.0.0.0 --port "$PORT" --no-access-log --timeout-graceful-shutdown 10
        ;;
    prepare)
        service=${2:?prepare which service?}
        cd "$packages/${service}_service"
        alembic -c alembic.ini upgrade head
        exec tandem install "$service"
        ;;
    migrate)
        cd "$packages/${2:?migrate which service?}_service"
        exec alembic -c alembic.ini upgrade head
        ;;
    *)
        exec tandem "$@"
        ;;
esac
