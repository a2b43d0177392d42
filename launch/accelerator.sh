#!/usr/bin/env bash
# Prints the extra of setup.py that this machine's accelerator needs: cuda12, cuda13, tpu, or nothing for a CPU.

driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 | cut -d . -f 1)
if [[ $driver =~ ^[0-9]+$ ]]; then
  if ((driver >= 580)); then echo cuda13; else echo cuda12; fi
  exit
fi

# A TPU is a PCI device of Google's (0x1ae0); the same vendor's network card is 0x0042.
for device in "${PCI_DEVICES:-/sys/bus/pci/devices}"/*; do
  if [[ $(cat "$device/vendor" 2>/dev/null) == 0x1ae0 ]]; then
    case $(cat "$device/device" 2>/dev/null) in
      0x0027 | 0x0056 | 0x005e | 0x0062 | 0x0063 | 0x006f | 0x0076) echo tpu && exit ;;
    esac
  fi
done
