#!/bin/sh
# A base image out of Debian's packages alone, for machines that reach no registry of images. It needs root, debootstrap
# and a Docker engine; the authorities that this machine trusts are trusted in the image.
set -eu
name=${1:-hami/base:bookworm}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder"
cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/"
rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
tar -C "$folder" -c . | docker import - "$name"
