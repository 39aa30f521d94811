import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests share the machine; networks this small gain nothing from a second thread."""
    torch.set_num_threads(1)
