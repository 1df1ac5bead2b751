# UNBUILT: nobody has built or started this image, for the registry and the package repository that it wants could not be
# reached where it was written (2026-11). Read it as a recipe, and tell us what it lacks.
#
# A database on Enterprise Linux whose host is Multicorn2, from PGDG's packages; pg_bridge has nothing of Multicorn's own.
# Enterprise Linux 10, because Python 3.9 of 9 is too old. The context is the checkout:
#     docker build -f docker/multicorn.Dockerfile --build-arg MAJOR=17 -t pg_bridge-multicorn:17 .
ARG BASE=almalinux:10

FROM ${BASE} AS server
ARG MAJOR=17
RUN dnf install -q -y \
        https://download.postgresql.org/pub/repos/yum/reporpms/EL-10-$(uname -m)/pgdg-redhat-repo-latest.noarch.rpm \
    && dnf install -q -y --setopt=install_weak_deps=False \
        postgresql$MAJOR-server multicorn2_$MAJOR python3 glibc-langpack-en \
    && dnf clean all

FROM server AS build
ARG MAJOR=17
RUN dnf install -q -y --setopt=install_weak_deps=False python3-pip gcc make redhat-rpm-config postgresql$MAJOR-devel \
    && dnf clean all
COPY requirements /src/requirements
RUN python3 -m venv /opt/pg_bridge \
    && /opt/pg_bridge/bin/pip install -q --no-cache-dir --no-deps -r /src/requirements/runtime.txt
COPY . /src
RUN PIP_CONSTRAINT=/src/requirements/dev.txt \
        /opt/pg_bridge/bin/pip install -q --no-cache-dir '/src[doctor,jobs,multicorn]' \
    && /opt/pg_bridge/bin/pg-bridge install --pg-config /usr/pgsql-$MAJOR/bin/pg_config \
    && ln -s /opt/pg_bridge/lib/python3.*/site-packages /opt/pg_bridge/site-packages \
    # The first start makes the other host's extension.
    && sed -i -e 's/CREATE EXTENSION pg_bridge CASCADE/CREATE EXTENSION pg_bridge_multicorn CASCADE/' \
        -e "s/OPTIONS (endpoint :'engine')/OPTIONS (wrapper 'pg_bridge.multicorn.wrapper.Wrapper', endpoint :'engine')/" \
        /src/docker/database.sql \
    && mkdir /made \
    && cp -a --parents /opt/pg_bridge /usr/pgsql-$MAJOR/lib/pg_bridge.so \
        /usr/pgsql-$MAJOR/share/extension/pg_bridge* /src/docker /src/sql /made

FROM server
ARG MAJOR=17
COPY --from=build /made /
RUN install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data \
    && install -d -o postgres -g postgres -m 2775 /var/run/postgresql
ENV PATH=/usr/pgsql-$MAJOR/bin:/opt/pg_bridge/bin:$PATH \
    PYTHONPATH=/opt/pg_bridge/site-packages \
    PGDATA=/var/lib/postgresql/data/$MAJOR \
    LANG=C.UTF-8
USER postgres
WORKDIR /src/sql
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=5s --start-period=120s CMD ["pg_isready", "-q", "-d", "llm"]
CMD ["/src/docker/database.sh"]
