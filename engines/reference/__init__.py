"""The reference engines that ship, one folder each."""
