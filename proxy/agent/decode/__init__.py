"""WHAT DOES ENVOY'S MESSAGE MEAN HERE? From envoy.* protos to the frozen model of proxy.config.

Rules of this room:
- One file a type: bootstrap, lds (with hcm), rds, cds, eds, tls; matchers and access_log are shared words.
- A static bootstrap and an ADS stream go through the same functions. The only difference: a bootstrap may
  name files (they are read here, once), a resource from the control plane may not.
- Nothing is ignored. A message is read through a Reader, which knows what was taken from it; whatever else
  is set is a problem that names its full path. Forgetting a field is therefore an error, never a silence.
- What is allowed to be unsupported becomes a warning, unless the rest would then mean something else: a match
  that matches more, plaintext for TLS, a listener without its filter. Those stay errors (Reader.strict, one_of).
- A decoder does not stop at the first problem: it reports, and goes on with a stand-in that nobody will see.
- Defaults are Envoy's, and stand beside the field in the model or in the decoder.
- Modules of envoy.* are imported when the first message that needs them arrives: an idle sidecar stays small.
"""

from proxy.agent.decode.bootstrap import Bootstrap, decode_bootstrap
from proxy.agent.decode.cds import decode_cluster
from proxy.agent.decode.eds import decode_load_assignment
from proxy.agent.decode.lds import decode_listener
from proxy.agent.decode.rds import decode_route_configuration
from proxy.agent.decode.reader import DecodeError
from proxy.agent.decode.secrets import PrivateKey

__all__ = [
    "Bootstrap",
    "DecodeError",
    "PrivateKey",
    "decode_bootstrap",
    "decode_cluster",
    "decode_listener",
    "decode_load_assignment",
    "decode_route_configuration",
]
