# Runs after boot.py: keeps the device connected and upgradable while your application runs. Yours
# is the function `application`; freeze this file into your firmware, so that an upgrade brings a
# new one.
import sys
import time
from binascii import a2b_base64

import machine


def application():
    """
    Yours: called about 50 times a second, and has to come back soon (the agent answers within 10 s
    because you do).
    """


def problems(settings):
    """Yields what is wrong with the settings of boot.py, in sentences."""
    from ota.protocol import is_text

    for name in (
        "WIFI_SSID",
        "WIFI_PASSWORD",
        "MQTT_SERVER",
        "PRODUCT_KEY",
        "IDENTIFIER",
        "DEVICE_SECRET",
    ):
        value = settings.get(name)
        # An open network has no password.
        if not isinstance(value, str) or not value and name != "WIFI_PASSWORD":
            yield name + " must be text in quotes, not empty"
        elif name == "MQTT_SERVER" and not is_text(value, "._-", 255):
            yield "MQTT_SERVER must be a name or address: " + value
        elif name in ("PRODUCT_KEY", "IDENTIFIER") and not is_text(value, "._-:@", 64):
            yield "%s may have 64 of A-Z a-z 0-9 . _ - : @ at most: %s" % (name, value)
    port = settings.get("MQTT_PORT", 1883)
    if type(port) is not int or not 0 < port < 65536:
        yield "MQTT_PORT must be 1 to 65535, no quotes: %r" % (port,)
    for key in settings.get("PUBLIC_KEYS", ()):
        if len(key) not in (512, 768):
            yield "PUBLIC_KEYS must be what `sign keygen` printed"
            return


def secure(ca):
    """
    What checks servers. ca: bytes, certificates in PEM or one in DER, or the name of such a file;
    nothing: no server is checked.
    """
    import tls

    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    if not ca:
        print("boot.py: ALLOW_UNVERIFIED_TLS: no server is checked!")
        context.verify_mode = tls.CERT_NONE
        return context
    if isinstance(ca, str):
        with open(ca, "rb") as f:
            ca = f.read()
    pem = ca.split(b"-----")[2::4]
    for part in pem or [ca]:
        context.load_verify_locations(a2b_base64(part) if pem else part)
    return context


def run(settings):
    found = list(problems(settings))
    keys = settings.get("PUBLIC_KEYS")
    hosts = settings.get("URL_HOSTS")
    ca = settings.get("CA")
    context = trust = None
    try:
        if ca or settings.get("ALLOW_UNVERIFIED_TLS"):
            context = secure(ca)
    except Exception as e:
        found.append("CA cannot be read: %r" % e)
    for problem in found:
        print("boot.py:", problem)
    if found:
        return  # to the prompt, where it can be mended

    import ota

    if keys or hosts or context:
        from ota.trust import Trust

        trust = Trust(keys, settings.get("BOARD"), None, hosts)
    identifier = settings["IDENTIFIER"]
    link = ota.Link(
        identifier,
        settings["MQTT_SERVER"],
        settings.get("MQTT_PORT", 1883),
        user=settings["PRODUCT_KEY"] + "&" + identifier,
        password=settings["DEVICE_SECRET"],
        ssl=settings.get("MQTT_TLS") and trust,
    )
    agent = ota.init(settings["PRODUCT_KEY"], identifier, link, trust=trust)
    print("ota: version", agent.version, keys and "signed" or "digest")
    due = 0
    alone = time.ticks_ms()  # since when; None = it was connected, or has been told
    while True:
        if context:  # certificates have dates: NTP sets the clock, every 8 s one try
            # Before the day on which this firmware was built it is wrong, whoever set it.
            if "%d-%02d-%02d" % time.gmtime()[:3] >= sys.version[-10:]:
                trust.tls = context
                context = None
            elif time.time() >= due:
                due = time.time() + 8
                try:
                    import ntptime

                    ntptime.settime()
                except Exception:
                    pass
                continue
        # First yours: a new firmware whose application fails must not have told its version yet.
        application()
        agent.poll()
        if link.up:
            alone = None
        elif alone is not None and time.ticks_diff(time.ticks_ms(), alone) > 15000:
            alone = None
            why = context and "no time yet" or link.error
            print("main.py: no connection to", link.server, link.port, why)
        if not agent.is_fetching():
            time.sleep_ms(20)


try:
    run(globals())
except Exception as e:
    # Nobody is at hand: a device that stays at the prompt could never be upgraded again.
    sys.print_exception(e)
    print("main.py: restarting in 10 s, Ctrl-C stops that")
    time.sleep(10)
    machine.reset()
