# The image of a release, from binaries that goreleaser built. ../../Dockerfile builds the same image from source.
FROM gcr.io/distroless/static-debian12:nonroot AS base

FROM scratch
ARG TARGETPLATFORM
COPY --from=base /etc/ssl/certs /etc/ssl/certs
COPY --from=base --chown=65532:65532 /home/nonroot /data
COPY --from=base /tmp /tmp
COPY $TARGETPLATFORM/flagr-server $TARGETPLATFORM/flagr-check /usr/local/bin/
WORKDIR /data
VOLUME /data
USER 65532:65532
ENV HOST=0.0.0.0 PORT=18000
EXPOSE 18000
ENTRYPOINT ["/usr/local/bin/flagr-server"]
