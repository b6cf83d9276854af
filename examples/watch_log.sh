#!/bin/sh
# Follow a log that never ends; each time it pauses, the question is answered again.
#     examples/watch_log.sh demo/model /var/log/syslog
exec tail -f "$2" | allmem-run "$1" --stream --pause 5 --prompt "What happened last?"
