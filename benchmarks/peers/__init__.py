"""Those that metaagentx is compared with: each file one library, imported only in the process that runs it."""
