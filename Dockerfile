# An image with the server and nothing else: docker build -t flagr-datar . && docker run -p 18000:18000 -v flagr:/data flagr-datar
FROM golang:1.26 AS build
WORKDIR /src
COPY go.work go.work.sum go.mod go.sum ./
COPY pkg/datar/go.mod pkg/datar/go.sum pkg/datar/
COPY pkg/datar/datarprom/go.mod pkg/datar/datarprom/go.sum pkg/datar/datarprom/
COPY pkg/datar/gormstore/go.mod pkg/datar/gormstore/go.sum pkg/datar/gormstore/
COPY pkg/evallog/go.mod pkg/evallog/go.sum pkg/evallog/
COPY pkg/evallog/evallogof/go.mod pkg/evallog/evallogof/go.sum pkg/evallog/evallogof/
RUN go mod download
COPY . .
RUN make build
# flagr.sqlite and the journals of Datar go to /data; an export of the database is written to /tmp on its way.
RUN mkdir -p /files/data /files/etc/ssl /files/usr/local && mkdir -m 1777 /files/tmp && chown 65532:65532 /files/data && \
    cp -r bin /files/usr/local/ && cp -rL /etc/ssl/certs /files/etc/ssl/

FROM scratch
COPY --from=build /files /
WORKDIR /data
VOLUME /data
USER 65532:65532
ENV HOST=0.0.0.0 PORT=18000
EXPOSE 18000
ENTRYPOINT ["/usr/local/bin/flagr-server"]
