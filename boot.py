# Runs first at every start. Two parts: a guard that you leave alone, and the settings that are
# yours. Copy it to the board beside main.py; a firmware never freezes it, so an upgrade never
# touches your settings.


# The guard. A new firmware is on trial until it has proved itself. Should it hang or fail
# before that, nobody is at hand to press reset: so the watchdog starts here, before Wi-Fi and
# before any code of the new firmware, and the boot loader rolls back. It imports nothing of ours
# on purpose. Source: ESP-IDF OTA data; docs/hardware.md, "Starting up".
def guard():
    from binascii import crc32

    from esp32 import Partition

    newest = (0, 0)
    for otadata in Partition.find(Partition.TYPE_DATA, subtype=0):
        for sector in (0, 1):
            entry = bytearray(32)
            otadata.readblocks(sector, entry, 0)
            seq = int.from_bytes(entry[:4], "little")
            state = int.from_bytes(entry[24:28], "little")
            counts = crc32(entry[:4], 0xFFFFFFFF) == int.from_bytes(
                entry[28:], "little"
            ) and state not in (3, 4)
            if counts and seq > newest[0]:
                newest = (seq, state)
    # PENDING_VERIFY, and it is the one that runs: the boot loader may have refused it.
    running = Partition(Partition.RUNNING).info()
    if newest[1] == 1 and Partition(Partition.BOOT).info() == running:
        import machine

        # The boot loader does not see these two, so a trial could go on for ever.
        if machine.reset_cause() in (machine.SOFT_RESET, machine.DEEPSLEEP_RESET):
            machine.reset()
        machine.WDT(timeout=120000)


guard()

# The settings.
WIFI_SSID = ""
WIFI_PASSWORD = ""
MQTT_SERVER = ""
MQTT_PORT = 1883
PRODUCT_KEY = ""
IDENTIFIER = ""
DEVICE_SECRET = ""
# Who may upgrade it, see docs/trust.md. Without a key: whoever can publish to the broker.
PUBLIC_KEYS = ()  # what `sign keygen` printed, one or two: firmware has to be signed with one
BOARD = "esp32"  # what it has to be signed for
URL_HOSTS = ()  # where it may come from; none: anywhere
CA = ""  # what https and MQTT servers are checked with: the name of a file, or its bytes
MQTT_TLS = False  # True: MQTT over TLS; the port is 8883, mostly
ALLOW_UNVERIFIED_TLS = False


# The network. Waits 20 s at most: the watchdog of the guard allows 120, and the radio goes on
# trying by itself.
def connect():
    from time import sleep_ms

    import network

    wlan = network.WLAN(network.STA_IF)
    wlan.active(True)
    if not wlan.isconnected():
        wlan.connect(WIFI_SSID, WIFI_PASSWORD)
    for _ in range(200):
        if wlan.isconnected():
            break
        sleep_ms(100)
    else:
        print("boot.py: no Wi-Fi yet (%s), going on without" % WIFI_SSID)


# Whatever is wrong here, main.py has to start: it says which setting it is, or goes on trying.
def start():
    try:
        if WIFI_SSID:
            connect()
    except Exception as e:
        print("boot.py: no Wi-Fi:", repr(e))


start()
