"""Who may do what on this node: ceiling, principals, grant sets applied, keys minted, receipts proven."""
