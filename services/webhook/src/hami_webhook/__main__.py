"""``hami-webhook``: read the settings, run until told to stop."""

from hami_kit.runner import run

from hami_webhook.bootstrap import serve
from hami_webhook.settings import WebhookSettings


def main() -> None:
    """Run the webhook."""
    run(serve, WebhookSettings)


if __name__ == "__main__":
    main()
