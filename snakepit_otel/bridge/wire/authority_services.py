"""Services that only an authority has, with their messages."""

from __future__ import annotations

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as admin
from snakepit_otel.bridge.proto import snakepit_leases_pb2 as leases
from snakepit_otel.rpc.services import methods_of

ADMIN = methods_of(admin.DESCRIPTOR.services_by_name["AdminService"])
LEASES = methods_of(leases.DESCRIPTOR.services_by_name["LeaseService"])
