#!/bin/sh
# The secrets that the manifests expect, made once; passwords of letters and digits only: they stand in addresses.
set -eu
new() { openssl rand -hex 24; }
admin=$(new) owner=$(new) writer=$(new) reader=$(new) postgres=$(new)
hosts=mongo-0.mongo.wyloop.svc:27017,mongo-1.mongo.wyloop.svc:27017,mongo-2.mongo.wyloop.svc:27017
options="?replicaSet=rs0&authSource=admin"
kubectl -n wyloop create secret generic mongo --from-literal=admin="$admin" --from-literal=keyfile="$(openssl rand -base64 756 | tr -d '\n')"
kubectl -n wyloop create secret generic wyloop-owner \
    --from-literal=WYLOOP_STORES_URI="mongodb://admin:$admin@$hosts/$options" \
    --from-literal=WYLOOP_OWNER_PASSWORD="$owner" --from-literal=WYLOOP_WRITER_PASSWORD="$writer" \
    --from-literal=WYLOOP_READER_PASSWORD="$reader"
kubectl -n wyloop create secret generic wyloop-writer \
    --from-literal=WYLOOP_STORES_URI="mongodb://wyloop_writer:$writer@$hosts/$options"
kubectl -n wyloop create secret generic wyloop-token --from-literal=WYLOOP_PLATFORM_API_TOKEN="$(new)"
kubectl -n wyloop create secret generic postgres --from-literal=password="$postgres" \
    --from-literal=url="postgresql+asyncpg://prefect:$postgres@postgres:5432/prefect"
